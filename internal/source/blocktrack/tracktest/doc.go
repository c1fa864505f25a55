// Package tracktest holds what every tracker must do (Suite), and what tests of
// trackers need: loop devices, and writers that use every way there is to change a
// block device.
package tracktest
