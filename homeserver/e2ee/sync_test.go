// SPDX-License-Identifier: Apache-2.0

package e2ee_test

import (
	"github.com/trunkboard/trunkboard/homeserver/e2ee"
	"github.com/trunkboard/trunkboard/homeserver/syncapi"
)

var _ syncapi.Keys = (*e2ee.Service)(nil)
