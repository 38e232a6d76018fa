// Package proto holds the service definition. `go generate ./proto` remakes
// gen/ from it with the tools that .ci/tools.mod pins.
package proto

//go:generate go tool -modfile=../.ci/tools.mod buf generate
