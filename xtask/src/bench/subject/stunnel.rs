//! stunnel4 at both ends.

use super::{Ground, Ports, Started, certificates::Certificates, program, write};
use crate::process::Process;

pub(super) fn start(ground: &Ground<'_>, ports: Ports) -> anyhow::Result<Started> {
    let certificates = Certificates::make(ground)?;
    let (ca, client, server) =
        (certificates.ca.display(), certificates.client.display(), certificates.server.display());
    let shared = "foreground = yes\nsyslog = no\npid =\ndebug = err\nsslVersionMin = TLSv1.3\n\
                  ciphersuites = TLS_AES_128_GCM_SHA256\n\
                  socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n";
    let far = format!(
        "{shared}[far]\naccept = {}\nconnect = {}\ncert = {server}\nCAfile = {ca}\nverifyChain = yes\n",
        ports.far, ground.target,
    );
    let near = format!(
        "{shared}[near]\nclient = yes\naccept = {}\nconnect = {}\ncert = {client}\nCAfile = {ca}\nverifyChain = yes\n",
        ports.entry, ports.far,
    );
    let program = program("stunnel4")?;
    let mut processes = Vec::new();
    for (name, configuration, listen) in [("stunnel-far", far, ports.far), ("stunnel-near", near, ports.entry)] {
        let file = write(ground.folder, &format!("{name}.conf"), &configuration)?;
        let mut process = Process::start(name, ground.folder, &program, [file])?;
        process.wait_until_listening(listen, ground.interrupt)?;
        processes.insert(0, process);
    }
    Ok((ports.entry, processes))
}
