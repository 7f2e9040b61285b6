//! What `cargo xtask test` has installed of the Python package index (`tests/python-packages.txt`).

use std::path::{Path, PathBuf};

use crate::command::find_program;

/// Names the folder that holds `bin/python3`.
pub const FOLDER_VARIABLE: &str = "POSTERN_TEST_PYTHON";

/// A Python with packages of its own.
#[derive(Clone, Debug)]
pub struct Python {
    folder: PathBuf,
}

impl Python {
    /// The folder that is named, or where `cargo xtask test` keeps it.
    #[must_use]
    pub fn find() -> Option<Self> {
        let named = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        let folder = named.or_else(|| cache.map(|cache| cache.join("postern-ci/tools/python")))?;
        let python = Self { folder };
        python.is_complete().then_some(python)
    }

    /// Whether it has what is listed now: the list that it was made from lies beside it.
    fn is_complete(&self) -> bool {
        let listed = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-packages.txt");
        let same = |made: Vec<u8>| std::fs::read(listed).is_ok_and(|listed| listed == made);
        std::fs::read(self.folder.join("packages.txt")).is_ok_and(same)
    }

    /// A program of a package, or `python3` itself.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let own = self.folder.join("bin").join(name);
        if own.is_file() { own } else { find_program(name).unwrap_or(own) }
    }
}

/// Gives the Python with the packages, or leaves the test with an announcement when there is none.
#[macro_export]
macro_rules! need_python {
    () => {
        match $crate::python::Python::find() {
            Some(python) => python,
            None => {
                $crate::skip::skip(
                    &$crate::skip::test_name(),
                    "the packages of tests/python-packages.txt are not installed (cargo xtask test --only packages)",
                );
                return Ok(());
            }
        }
    };
}
