//! `margay_felix::verdict` against the numbered cases of the API's semantics, and its independence.

mod cases;
mod decisions;
mod faults;
mod independence;
mod live;
mod world;
