//go:build race

package main

// raceDetector tells whether this test binary was built with -race.
const raceDetector = true
