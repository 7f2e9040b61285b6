//! An open queue of a device within a runtime: frames in, frames out. A frame is a packet after its 10-byte virtio header,
//! on every platform; where the device knows no such header ([`OFFLOAD`]) it is zeros, and left out of what is written.

pub use crate::sys::{FrameQueue, is_gone};

/// Whether the device takes and gives TCP segments larger than its MTU, and packets without checksums.
pub const OFFLOAD: bool = cfg!(target_os = "linux");

/// The MTU to ask for: what programs expect where offload makes up for it, else as much as the device takes, because
/// these packets never leave the machine.
pub const MTU: u32 = if cfg!(target_os = "linux") {
    1500
} else if cfg!(target_os = "macos") {
    // Longer ones fit into no cluster of its memory.
    16_000
} else {
    65_535
};
