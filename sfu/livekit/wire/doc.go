// SPDX-License-Identifier: Apache-2.0

// Package wire holds the messages of LiveKit's signalling protocol, generated from livekit.proto.
package wire

//go:generate go build -o protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --plugin=./protoc-gen-go --go_out=. --go_opt=paths=source_relative livekit.proto
//go:generate rm protoc-gen-go
