//! The core under simulated time: single scenarios, random sequences, and a walk over every state that can be reached.

mod diagnosis;
mod idle;
mod in_place;
mod instances;
mod leading;
mod limits;
mod lingering;
mod listening;
mod random;
mod scenarios;
mod signals;
mod status;
mod stopping;
mod walk;
mod world;
