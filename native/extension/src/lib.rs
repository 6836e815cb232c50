//! What Python sees of the native part. Thin: it turns arguments and results, and gives up the
//! interpreter's lock while bytes are worked on.

mod buffers;
mod errors;
mod packing;
mod packing_columns;

use pyo3::prelude::*;

/// The number of its calls: `cosco.mechanics` takes no other one than its own.
const INTERFACE: u32 = 1;

/// Checks all blocks in `data`. Returns how many there are.
#[pyfunction]
fn count_blocks(py: Python<'_>, data: buffers::Bytes) -> PyResult<usize> {
    py.detach(|| {
        let (bytes, mut offset, mut count) = (data.as_slice(), 0, 0);
        while offset < bytes.len() {
            offset += cosco_mechanics::block::checked_block(bytes, offset)?.block_bytes();
            count += 1;
        }
        Ok(count)
    })
    .map_err(errors::data_corrupted)
}

/// The native part of Cosco; see `cosco/mechanics.py`.
#[pymodule]
mod cosco_native {
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_export]
    use super::count_blocks;

    #[pymodule_export]
    use super::packing::{BlockWriter, RowSorter, SortedRows};

    #[pymodule_export]
    use super::packing_columns::{ColumnSorter, SortedColumns};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("INTERFACE", super::INTERFACE)?;
        module.add("VERSION", env!("CARGO_PKG_VERSION"))
    }
}
