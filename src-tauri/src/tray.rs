//! The tray: a picture, a line of text and a menu, all made by pure functions from the state.

pub mod icon;
pub mod menu;
pub mod shell;
