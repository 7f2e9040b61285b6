//! A CA and two leaves for the TLS peers, made by the openssl command that comes with them. P-256, as Postern's are.

use std::path::{Path, PathBuf};

use super::{Ground, program, write};
use crate::process::run;

pub(super) struct Certificates {
    pub(super) ca: PathBuf,
    /// Key and certificate in one file.
    pub(super) client: PathBuf,
    pub(super) server: PathBuf,
}

impl Certificates {
    pub(super) fn make(ground: &Ground<'_>) -> anyhow::Result<Self> {
        let folder = ground.folder;
        let ca = folder.join("ca.pem");
        let ca_key = folder.join("ca.key");
        openssl(
            ground,
            &["req", "-x509", "-days", "2", "-nodes", "-subj", "/CN=bench CA", "-newkey", "ec"],
            &[("-keyout", &ca_key), ("-out", &ca)],
        )?;
        Ok(Self { client: leaf(ground, "client", &ca, &ca_key)?, server: leaf(ground, "server", &ca, &ca_key)?, ca })
    }
}

fn leaf(ground: &Ground<'_>, name: &str, ca: &Path, ca_key: &Path) -> anyhow::Result<PathBuf> {
    let file = |extension: &str| ground.folder.join(format!("{name}.{extension}"));
    let (key, certificate) = (file("key"), file("crt"));
    openssl(
        ground,
        &["req", "-x509", "-days", "2", "-nodes", "-subj", &format!("/CN={name}"), "-newkey", "ec"],
        &[("-keyout", &key), ("-out", &certificate), ("-CA", ca), ("-CAkey", ca_key)],
    )?;
    let both = std::fs::read_to_string(&key)? + &std::fs::read_to_string(&certificate)?;
    write(ground.folder, &format!("{name}.pem"), &both)
}

fn openssl(ground: &Ground<'_>, args: &[&str], files: &[(&str, &Path)]) -> anyhow::Result<()> {
    let program = program("openssl")?;
    run("openssl", ground.interrupt, "", |command| {
        command.arg(program).args(args).args(["-pkeyopt", "ec_paramgen_curve:P-256"]);
        for (name, file) in files {
            command.arg(name).arg(file);
        }
    })?;
    Ok(())
}
