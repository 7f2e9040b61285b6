//! Lets Tauri read its configuration, and makes sure that there is a page to build in.

use std::{fs, io, path::Path};

/// Stands in for the front end until that is built, so that `cargo clippy --workspace` needs no npm.
const PLACEHOLDER: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Postern</title>
<p>The front end of this program is not built. Run <code>npm ci &amp;&amp; npm run build</code> in <code>ui/</code>, then build
<code>postern-desktop</code> again.</p>
</html>
";

fn main() -> io::Result<()> {
    let page = Path::new("../ui/desktop/dist/index.html");
    println!("cargo::rerun-if-changed=../ui/desktop/dist");
    if !page.exists() {
        if let Some(folder) = page.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(page, PLACEHOLDER)?;
    }
    tauri_build::try_build(tauri_build::Attributes::new()).map_err(io::Error::other)
}
