"""The same jobs on many machines, by engines that exist: composites on Ray."""
