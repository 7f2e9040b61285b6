//! The compiled `postern` against a local API that a test answers.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod manual;
#[cfg(test)]
mod network;
#[cfg(test)]
mod output;
#[cfg(test)]
mod service;
#[cfg(test)]
mod support;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod user;
