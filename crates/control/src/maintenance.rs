//! Maintenance windows: when nodes may be taken out of service by themselves, and the drains that wait for one.
//!
//! [`Schedule`] and [`plan()`] know no clock; [`run`] has what waits begun when its time has come.

mod begin;
mod plan;
mod schedule;

pub use self::{
    begin::{begin_due, is_idle, run},
    plan::{Begin, Opening, due, plan},
    schedule::{LONGEST, LONGEST_TEXT, SHORTEST, Schedule, ScheduleError},
};
