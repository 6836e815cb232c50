//! Classes of `cosco` that calls give back: records, which have no twin here.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

macro_rules! classes {
    ($($(#[$documentation:meta])* $name:ident = $module:literal, $class:literal;)*) => {$(
        $(#[$documentation])*
        pub fn $name(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
            static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            CLASS.import(py, $module, $class)
        }
    )*};
}

classes! {
    appended = "cosco.shuffle_service.state.buffers.frame_append", "Appended";
    array = "array", "array";
    assignment_key = "cosco.protocol.keys", "AssignmentKey";
    chunk_state = "cosco.shuffle_service.state.buffers.partition_buffer", "ChunkState";
    deque = "collections", "deque";
    frame_header = "cosco.format.frame", "FrameHeader";
    layout = "cosco.shuffle_service.state.buffers.partition_buffer", "Layout";
    mapper_attempt = "cosco.protocol.keys", "MapperAttempt";
    page = "cosco.shuffle_service.state.buffers.pool", "Page";
    segment_index = "cosco.format.segment", "SegmentIndex";
}
