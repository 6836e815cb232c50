//! Errors of the mechanics, as those of `cosco.errors`.

use cosco_mechanics::damage::Damage;
use pyo3::prelude::*;

pyo3::import_exception!(cosco.errors, DataCorrupted);

/// What Python raises for damaged bytes.
pub fn data_corrupted(damage: Damage) -> PyErr {
    DataCorrupted::new_err(damage.0)
}
