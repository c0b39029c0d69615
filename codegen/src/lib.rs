//! Schedules and machine code: kernel to Cranelift code for the CPU, packed into an artifact.
