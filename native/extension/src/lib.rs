//! What Python sees of the native part. Thin: it turns arguments and results, and gives up the
//! interpreter's lock while bytes are worked on.

mod buffers;
mod caller;
mod chunks;
mod client;
mod dedupe;
mod errors;
mod frames;
mod lent;
mod merging;
mod new_bytes;
mod one_thread;
mod ours;
mod packing;
mod packing_columns;
mod pool;
mod rows;
mod section_rows;
mod segments;
mod tls;
mod transport;
mod twins;

use pyo3::prelude::*;

/// The number of its calls: `cosco.mechanics` takes no other one than its own.
const INTERFACE: u32 = 13;

/// Breaks something on purpose, as tests ask for it. Returns false if there is no such thing.
#[cfg(feature = "breaks")]
#[pyfunction]
fn break_on_purpose(name: &str) -> bool {
    cosco_mechanics::breaks::break_on_purpose(name)
}

/// The native part of Cosco; see `cosco/mechanics.py`.
#[pymodule]
mod cosco_native {
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[cfg(feature = "breaks")]
    #[pymodule_export]
    use super::break_on_purpose;

    #[pymodule_export]
    use super::caller::ServiceCaller;
    #[pymodule_export]
    use super::chunks::{Chunk, PartitionBuffer};
    #[pymodule_export]
    use super::client::{ClientCall, ClientConnection, ClientRuntime, close_inherited_connections};
    #[pymodule_export]
    use super::dedupe::DedupeIndex;
    #[pymodule_export]
    use super::frames::{CheckedFrame, append_frame, check_frame};
    #[pymodule_export]
    use super::pool::PagePool;
    #[pymodule_export]
    use super::section_rows::SectionRows;
    #[pymodule_export]
    use super::segments::{end_flush, lay_out};
    #[pymodule_export]
    use super::tls::{TlsClient, TlsServer};
    #[pymodule_export]
    use super::transport::ServerConnection;

    #[pymodule_export]
    use super::merging::{Attempts, BlockCount, whole_blocks};

    #[pymodule_export]
    use super::rows::{join_rows, split_rows};

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
