//! The worker role: what a gateway does, behind the address of a proxy cluster, which it enrols in with a key pair.

mod certificate;
mod options;
mod run;

pub use self::{
    options::{BadWorkerOption, ClusterKey, WorkerOptions},
    run::{WorkerError, run},
};
