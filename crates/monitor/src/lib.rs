//! Where a program of ours says whether it lives and what it does: `/liveness` for orchestrators and balancers, `/metrics`
//! for Prometheus. Each has an address of its own, and both are off until they are given one.
//!
//! They are served by a thread with a runtime of its own, so that a program whose threads are all busy still answers.
//! There is no TLS and no authentication: nothing here names a person or a resource, but the addresses are for the network of
//! those who run the program.
//!
//! It never decides what is counted: that is for its users, who implement [`Subject`].
#![forbid(unsafe_code)]

mod page;
mod place;
mod serve;

pub use self::{
    page::{Page, processor_time, signed},
    place::{MonitorPlaces, Place},
    serve::{Answer, Monitor, MonitorError, Standing, Subject},
};
