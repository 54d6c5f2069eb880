//! The library as its users see it: conversion both ways, reading, damage, resumption.
#![allow(clippy::unwrap_used, reason = "tests")]

mod choices;
mod damage;
mod entropy;
mod estimate;
mod laws;
mod references;
mod resume;
mod round_trip;
mod scale;
mod sources;
mod spqr;
mod stopped;
mod ternary;
mod views;
