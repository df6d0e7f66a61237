// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// pionLog gives pion's modules a logger: what they call a warning or an error is most often a client that went away, so it is
// written at the debug level; what matters is returned as an error.
type pionLog struct{ log *slog.Logger }

// NewLogger implements logging.LoggerFactory.
func (l pionLog) NewLogger(scope string) logging.LeveledLogger {
	return pionLogger{l.log.With("pion", scope)}
}

type pionLogger struct{ log *slog.Logger }

func (pionLogger) Trace(string)                   {}
func (pionLogger) Tracef(string, ...any)          {}
func (pionLogger) Debug(string)                   {}
func (pionLogger) Debugf(string, ...any)          {}
func (pionLogger) Info(string)                    {}
func (pionLogger) Infof(string, ...any)           {}
func (l pionLogger) Warn(msg string)              { l.log.Debug(msg) }
func (l pionLogger) Warnf(f string, args ...any)  { l.log.Debug(fmt.Sprintf(f, args...)) }
func (l pionLogger) Error(msg string)             { l.log.Debug(msg) }
func (l pionLogger) Errorf(f string, args ...any) { l.log.Debug(fmt.Sprintf(f, args...)) }
