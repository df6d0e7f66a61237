// SPDX-License-Identifier: Apache-2.0

package clientapi

import "github.com/trunkboard/trunkboard/homeserver/httpapi"

// What handlers return besides values that are encoded as JSON.
type (
	Raw     = httpapi.Raw
	Written = httpapi.Written
)

var emptyObject = Raw("{}")
