//! Who is asking, and whether he may. Each platform knows its users by other means, behind the same names.

#[cfg(target_os = "macos")]
#[path = "authority/console.rs"]
mod imp;
#[cfg(windows)]
#[path = "authority/interactive.rs"]
mod imp;
#[cfg(target_os = "linux")]
#[path = "authority/polkit.rs"]
mod imp;

pub(crate) use imp::Asker;
