// SPDX-License-Identifier: Apache-2.0
import type { Measurement, Quality } from './quality.ts';
import type { CallView } from './view.ts';

const WORDS: Record<Quality, string> = { unknown: 'Measuring', good: 'Good', fair: 'Fair', poor: 'Poor' };
const BARS: Record<Quality, number> = { unknown: 0, good: 3, fair: 2, poor: 1 };

function rows(m: Measurement): [string, string][] {
  const list: [string, string][] = [];
  const add = (name: string, value: string | undefined) => value && list.push([name, value]);
  add('Route', m.route === 'relayed' ? 'Relayed by the server' : m.route === 'direct' ? 'Direct' : undefined);
  add('Protocol', m.protocol?.toUpperCase());
  add('Round trip', m.rttMs === undefined ? undefined : `${Math.round(m.rttMs)} ms`);
  add('Packet loss', m.loss === undefined ? undefined : `${(m.loss * 100).toFixed(1)} %`);
  add('Jitter', m.jitterMs === undefined ? undefined : `${Math.round(m.jitterMs)} ms`);
  add('Receiving', m.kbpsIn === undefined ? undefined : `${Math.round(m.kbpsIn)} kbit/s`);
  add('Sending', m.kbpsOut === undefined ? undefined : `${Math.round(m.kbpsOut)} kbit/s`);
  add('Picture', m.frameHeight ? `${m.frameHeight}p${m.fps === undefined ? '' : `, ${Math.round(m.fps)} fps`}` : undefined);
  return list;
}

interface Props {
  call: CallView;
  open: boolean;
  onToggle: () => void;
}

export function QualityBadge({ call, open, onToggle }: Props) {
  const { quality, measurement } = call;
  return (
    <div className="quality">
      <button
        type="button"
        className={`call-chip quality-${quality}`}
        aria-expanded={open}
        aria-label={`Connection: ${WORDS[quality]}. Show details`}
        data-testid="call-quality"
        data-quality={quality}
        data-route={measurement?.route}
        data-protocol={measurement?.protocol}
        onClick={onToggle}
      >
        <span className="bars" aria-hidden="true">
          {[1, 2, 3].map((n) => (
            <i key={n} className={n <= BARS[quality] ? 'is-lit' : ''} />
          ))}
        </span>
        <span>{WORDS[quality]}</span>
      </button>
      {open && measurement && (
        <dl className="quality-details" data-testid="call-quality-details">
          {rows(measurement).map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      )}
    </div>
  );
}
