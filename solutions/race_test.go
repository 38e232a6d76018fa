//go:build race

package solutions_test

func raceFlags() []string { return []string{"-race"} }
