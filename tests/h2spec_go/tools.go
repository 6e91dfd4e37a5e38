//go:build tools

// Package tools pins h2spec and what it is built from; tests/setup.sh builds its command from here.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
