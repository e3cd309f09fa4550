//! The founding table row by row, with the machines that walk through it: each row begins in its state, gets its signal, and does what the
//! table says.

mod member;
mod voter;
