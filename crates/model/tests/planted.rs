//! The properties can fail: each bug that is planted is found, and by the property that it offends.
//!
//! `cargo test --profile campaign -p annulet-model --features planted --test planted -- --nocapture`
