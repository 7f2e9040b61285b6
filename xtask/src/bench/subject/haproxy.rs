//! haproxy at both ends, in TCP mode, with TLS in between.

use std::path::Path;

use super::{Ground, Ports, Started, certificates::Certificates, program, write};
use crate::process::Process;

/// haproxy refuses to start when its streams could need more files than it may open: two each, and some of its own.
const OWN_FILES: u64 = 400;

pub(super) fn start(ground: &Ground<'_>, ports: Ports) -> anyhow::Result<Started> {
    let certificates = Certificates::make(ground)?;
    let ca = certificates.ca.display();
    let streams = ground.open_files.saturating_sub(OWN_FILES) / 2;
    let shared = format!(
        "global\n  maxconn {streams}\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n  \
         ssl-default-server-options ssl-min-ver TLSv1.3\n  \
         ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256\n  \
         ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
    );
    let far = format!(
        "{shared}listen far\n  bind {} ssl crt {} ca-file {ca} verify required\n  server target {}\n",
        ports.far,
        certificates.server.display(),
        ground.target,
    );
    let near = format!(
        "{shared}listen near\n  bind {}\n  server far {} ssl crt {} ca-file {ca} verify required\n",
        ports.entry,
        ports.far,
        certificates.client.display(),
    );
    let program = program("haproxy")?;
    let mut processes = Vec::new();
    for (name, configuration, listen) in [("haproxy-far", far, ports.far), ("haproxy-near", near, ports.entry)] {
        let file = write(ground.folder, &format!("{name}.cfg"), &configuration)?;
        // -db: in the foreground.
        let args = [Path::new("-db"), Path::new("-f"), &file];
        let mut process = Process::start(name, ground.folder, &program, args)?;
        process.wait_until_listening(listen, ground.interrupt)?;
        processes.insert(0, process);
    }
    Ok((ports.entry, processes))
}
