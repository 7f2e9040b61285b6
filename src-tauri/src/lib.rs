//! The desktop app.
#![forbid(unsafe_code)]
