//go:build race

package client_test

// raceEnabled: the race detector allocates, and makes calls many times slower.
const raceEnabled = true
