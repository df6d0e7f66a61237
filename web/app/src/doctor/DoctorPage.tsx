// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef, useState } from 'react';
import { defaultHomeserver, loadSession } from '../auth/session.ts';
import { TokenKeeper } from '../auth/tokens.ts';
import { examine, type Finding, type Verdict } from './checks.ts';
import { Devices } from './Devices.tsx';

const words: Record<Verdict, string> = { good: 'Fine', warning: 'Works, with limits', broken: 'Broken', skipped: 'Not looked at' };
const signs: Record<Verdict, string> = { good: '✓', warning: '!', broken: '✕', skipped: '–' };

/** One line on the whole. */
export function summary(findings: Finding[]): string {
  const broken = findings.filter((f) => f.verdict === 'broken').length;
  const warnings = findings.filter((f) => f.verdict === 'warning').length;
  if (findings.some((f) => f.check === 'network' && f.verdict === 'broken') || findings.some((f) => f.check === 'server' && f.verdict === 'broken')) return 'Calls will not work from here.';
  if (broken > 0) return broken === 1 ? 'One thing is broken; calls may fail.' : `${broken} things are broken; calls may fail.`;
  if (warnings > 0) return 'Calls work from here, with limits.';
  if (findings.some((f) => f.verdict === 'skipped' && f.check === 'relay')) return 'So far nothing stands in the way of calls.';
  return 'Calls work from here.';
}

export function DoctorPage() {
  const [findings, setFindings] = useState<Finding[]>([]);
  const [running, setRunning] = useState(true);
  const [round, setRound] = useState(0);
  const heading = useRef<HTMLHeadingElement>(null);

  useEffect(() => {
    const stop = new AbortController();
    const session = loadSession();
    const keeper = session ? new TokenKeeper(session) : null;
    setFindings([]);
    setRunning(true);
    void examine({ session, fetch: keeper?.fetch ?? fetch.bind(window) }, (f) => !stop.signal.aborted && setFindings((all) => [...all, f]), stop.signal)
      .catch((error: unknown) => {
        console.error('doctor', error);
        setFindings((all) => [...all, { check: 'page', title: 'This page', verdict: 'broken', text: 'It failed while it looked.', next: 'Reload it; the browser’s console has the details.' }]);
      })
      .finally(() => !stop.signal.aborted && setRunning(false));
    return () => stop.abort();
  }, [round]);

  const again = () => {
    setRound((n) => n + 1);
    heading.current?.focus();
  };

  return (
    <main className="doctor">
      <header>
        <a className="doctor-home" href="/">
          ← Trunkboard
        </a>
        <h1 ref={heading} tabIndex={-1}>
          Can this browser make calls?
        </h1>
        <p className="doctor-summary" role="status" data-testid="doctor-summary">
          {running ? `Looking at ${new URL(loadSession()?.baseUrl ?? defaultHomeserver()).host} …` : summary(findings)}
        </p>
      </header>
      <ul className="doctor-list" aria-label="Findings" aria-busy={running}>
        {findings.map((f) => (
          <li key={f.check} className={`doctor-finding doctor-${f.verdict}`} data-testid="finding" data-check={f.check} data-verdict={f.verdict}>
            <span className="doctor-sign" aria-hidden="true">
              {signs[f.verdict]}
            </span>
            <div>
              <h2>
                {f.title} <span className="doctor-verdict">{words[f.verdict]}</span>
              </h2>
              <p>{f.text}</p>
              {f.next && <p className="doctor-next">{f.next}</p>}
            </div>
          </li>
        ))}
        {running && (
          <li className="doctor-finding doctor-waiting">
            <span className="doctor-sign doctor-spinner" aria-hidden="true" />
            <div>
              <h2>Still looking</h2>
              <p>A closed way takes some seconds to show.</p>
            </div>
          </li>
        )}
      </ul>
      <Devices />
      <footer>
        <button className="button button-primary" type="button" onClick={again} disabled={running} data-testid="doctor-again">
          Look again
        </button>
        <p>Nothing of this leaves your browser but the questions themselves.</p>
      </footer>
    </main>
  );
}
