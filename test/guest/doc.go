// Package guest boots small Linux machines of the distribution's kernel for tests
// that need disks, drivers and stacks of devices that the host lacks: partitions,
// NVMe, device mapper, md. A machine has no root disk; programs of the host come
// along with their libraries, and a helper of ours runs commands in it.
//
// Emulation only: a boot takes some seconds on an idle processor.
package guest
