//! The check of a number.

use crate::{Error, Result};

/// A number of the loss within its range; NaN and infinity lie outside every range.
pub(crate) fn in_range(what: &'static str, found: f64, inside: bool, allowed: &'static str) -> Result<()> {
    if found.is_finite() && inside { Ok(()) } else { Err(Error::Parameter { what, found, allowed }) }
}
