// SPDX-License-Identifier: Apache-2.0

package bus

import "context"

// Mem is the Bus of a Trunkboard that is one process.
type Mem struct{ hub *hub }

var _ Bus = (*Mem)(nil)

// NewMem makes a Bus whose subscriptions each hold queue messages (0 = DefaultQueue).
func NewMem(queue int) *Mem { return &Mem{hub: newHub(queue, nil)} }

// Publish implements Bus.
func (m *Mem) Publish(topic string, payload []byte) error {
	if err := checkPublish(topic, payload); err != nil {
		return err
	}
	return m.hub.publish(topic, payload)
}

// Subscribe implements Bus.
func (m *Mem) Subscribe(_ context.Context, topics ...string) (*Subscription, error) {
	return m.hub.add(topics)
}

// Close implements Bus.
func (m *Mem) Close() error {
	m.hub.close()
	return nil
}
