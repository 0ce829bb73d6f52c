//! Catalog, statements, ticks, sources, sinks and the clock.
