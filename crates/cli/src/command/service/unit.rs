//! The text of the systemd user unit.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

/// The first line of a unit that this program wrote; others are left alone.
pub(super) const MARK: &str = "# Written by `postern service install`; `postern service uninstall` removes it.";

/// An argument that systemd cannot be given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unspeakable(pub(super) String);

/// The unit that runs `program` with `options`.
pub(super) fn text(program: &Path, options: &[impl AsRef<OsStr>]) -> Result<String, Unspeakable> {
    let mut command = quote(program.as_os_str(), Place::Program)?;
    for option in options {
        command.push(' ');
        command.push_str(&quote(option.as_ref(), Place::Option)?);
    }
    Ok(format!(
        "{MARK}
[Unit]
Description=Postern: reach private infrastructure from this machine
After=network.target
StartLimitIntervalSec=60
StartLimitBurst=10

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=1
LimitCORE=0
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"
    ))
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Program,
    Option,
}

/// Quotes one word of a command line by the rules of systemd.service(5): `%` begins a specifier everywhere, `$` a
/// variable in options.
fn quote(word: &OsStr, place: Place) -> Result<String, Unspeakable> {
    let text = word.to_str().filter(|text| !text.chars().any(char::is_control));
    let Some(text) = text else {
        return Err(Unspeakable(String::from_utf8_lossy(word.as_bytes()).into_owned()));
    };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            '$' if place == Place::Option => quoted.push_str("$$"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_so_that_systemd_takes_them_literally() {
        let unit = text(Path::new("/opt/my $tools/100%/posternd"), &["--home", r#"/h/$USER/"x"\y"#]).unwrap();
        let line = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert_eq!(line, r#"ExecStart="/opt/my $tools/100%%/posternd" "--home" "/h/$$USER/\"x\"\\y""#);
    }

    #[test]
    fn a_word_that_would_begin_a_new_line_is_refused() {
        assert!(text(Path::new("/p"), &["a\nExecStartPre=/bin/evil"]).is_err());
    }
}
