//! The test bed: Postern's own programs and real servers, each started for one test on ports that the kernel chose,
//! with folders of its own, and gone when the test is over.
//!
//! It never uses a fixed port, a system service or a folder outside the temporary one, and it stops only what it
//! started, by process id. What cannot run on a machine is announced through [`skip`], never silently passed.
#![forbid(unsafe_code)]

pub mod api;
pub mod authority;
pub mod balancer;
pub mod binaries;
#[cfg(target_os = "linux")]
pub mod capture;
pub mod carrier;
pub mod client;
pub mod clock;
#[cfg(target_os = "linux")]
pub mod cluster_bed;
pub mod command;
pub mod container;
pub mod content;
pub mod desk;
pub mod device;
pub mod figure;
mod holder;
pub mod namespace;
pub mod network_bed;
pub mod openmetrics;
pub mod overlay;
pub mod peer;
#[cfg(target_os = "linux")]
pub mod polkit;
pub mod ports;
pub mod process;
pub mod python;
pub mod resolver;
pub mod scale;
pub mod servers;
pub mod session_bus;
#[cfg(target_os = "linux")]
pub mod site;
pub mod skip;
mod sockets;
pub mod stack;
pub mod target;
pub mod vault;
#[cfg(target_os = "linux")]
pub mod vnm;

pub use sockets::survivors;
