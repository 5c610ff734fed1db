//! vatn
