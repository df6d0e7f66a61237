// SPDX-License-Identifier: Apache-2.0
import { useRef, useState, type FormEvent } from 'react';
import { Logo } from '../ui/Icon.tsx';
import { explain, signIn, signUp, TokenNeeded } from './auth.ts';
import { askForMail, MailNeeded, MailSent, resetPassword, type Mail } from './mail.ts';
import { defaultHomeserver, type Session } from './session.ts';

interface Props {
  notice: string;
  onTyping: () => void;
  /** The password goes along, for setting up the encryption; it is stored nowhere. */
  onSession: (session: Session, password: string) => void;
}

type Mode = 'in' | 'up' | 'forgot';

const INVITATION: Record<Mode, string> = {
  in: 'Welcome back. Sign in to call and chat.',
  up: 'Make an account on this server.',
  forgot: 'Choose a new password. A mail to your address proves that it is you.',
};

export function AuthScreen({ notice, onTyping, onSession }: Props) {
  const [mode, setMode] = useState<Mode>('in');
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const [token, setToken] = useState('');
  const [email, setEmail] = useState('');
  const [askToken, setAskToken] = useState(false);
  const [askEmail, setAskEmail] = useState(false);
  const [mail, setMail] = useState<Mail>();
  const [again, setAgain] = useState(1);
  const [said, setSaid] = useState('');
  const [shown, setShown] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState('');
  const tokenField = useRef<HTMLInputElement>(null);
  const emailField = useRef<HTMLInputElement>(null);
  const server = defaultHomeserver();

  const change = (next: Mode) => {
    setMode(next);
    setError('');
    setSaid('');
    setAskToken(false);
    setAskEmail(next === 'forgot');
    setMail(undefined);
  };

  /** What is missing before anything can be sent, in words. */
  const missing = () => {
    if (mode !== 'forgot' && (!user.trim() || !password)) return 'Please fill in a user name and a password.';
    if (mode === 'forgot' && (!email.trim() || !password)) return 'Please fill in your e-mail address and a new password.';
    return '';
  };

  const perform = async () => {
    const name = user.trim();
    if (mode === 'in') return onSession(await signIn(server, name, password), password);
    if (mode === 'up') return onSession(await signUp(server, name.toLowerCase(), password, { token: token.trim(), email: email.trim(), mail }), password);
    if (!mail) throw new MailSent(await askForMail(server, 'password', email.trim()));
    await resetPassword(server, mail, password);
    change('in');
    setSaid('Your new password is set. All other sessions have ended. Sign in with it.');
    setBusy(false);
  };

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (busy) return;
    const lack = missing();
    if (lack) {
      setError(lack);
      return;
    }
    setBusy(true);
    setError('');
    try {
      await perform();
    } catch (problem) {
      setBusy(false);
      if (problem instanceof MailSent) {
        setMail(problem.mail);
        return;
      }
      if (problem instanceof TokenNeeded) {
        setAskToken(true);
        requestAnimationFrame(() => tokenField.current?.focus());
      }
      if (problem instanceof MailNeeded) {
        setAskEmail(true);
        requestAnimationFrame(() => emailField.current?.focus());
      }
      setError(explain(problem));
    }
  };

  const mailAgain = async () => {
    if (busy || !mail) return;
    setBusy(true);
    setError('');
    try {
      setMail(await askForMail(server, mode === 'up' ? 'register' : 'password', mail.address, again + 1, mail.secret));
      setAgain(again + 1);
    } catch (problem) {
      setError(explain(problem));
    }
    setBusy(false);
  };

  const todo = mail ? 'I have opened the link' : mode === 'in' ? 'Sign in' : mode === 'up' ? 'Make account' : 'Send me a mail';

  return (
    <main className="auth">
      <section className="auth-card">
        <header className="auth-brand">
          <Logo size={44} />
          <h1>Trunkboard</h1>
          <p>{INVITATION[mode]}</p>
        </header>

        {(said || notice) && mode === 'in' && (
          <p className="callout" role="status" data-testid="auth-notice">
            {said || notice}
          </p>
        )}

        <form onSubmit={submit} onInput={onTyping} aria-busy={busy} noValidate>
          <div className="segmented" role="tablist" aria-label="Sign in or sign up">
            <button type="button" role="tab" aria-selected={mode === 'in'} data-testid="auth-tab-signin" onClick={() => change('in')}>
              Sign in
            </button>
            <button type="button" role="tab" aria-selected={mode === 'up'} data-testid="auth-tab-signup" onClick={() => change('up')}>
              Sign up
            </button>
          </div>

          {mode !== 'forgot' && (
            <label className="field">
              <span>User name</span>
              <input
                data-testid="auth-username"
                name="username"
                autoComplete="username"
                autoCapitalize="none"
                autoCorrect="off"
                spellCheck={false}
                autoFocus
                value={user}
                onChange={(e) => setUser(e.target.value)}
                placeholder="ann"
              />
            </label>
          )}

          {askEmail && (
            <label className="field">
              <span>E-mail address</span>
              <input
                ref={emailField}
                data-testid="auth-email"
                name="email"
                type="email"
                autoComplete="email"
                autoFocus={mode === 'forgot'}
                spellCheck={false}
                value={email}
                onChange={(e) => {
                  setEmail(e.target.value);
                  setMail(undefined);
                }}
                placeholder="ann@example.org"
              />
              {mode === 'up' && <small>This server mails you a link to prove that the address is yours.</small>}
            </label>
          )}

          <label className="field">
            <span>{mode === 'forgot' ? 'New password' : 'Password'}</span>
            <span className="field-row">
              <input
                data-testid="auth-password"
                name="password"
                type={shown ? 'text' : 'password'}
                autoComplete={mode === 'in' ? 'current-password' : 'new-password'}
                value={password}
                onChange={(e) => setPassword(e.target.value)}
              />
              <button type="button" className="field-action" aria-pressed={shown} onClick={() => setShown(!shown)}>
                {shown ? 'Hide' : 'Show'}
              </button>
            </span>
          </label>

          {mode === 'up' && askToken && (
            <label className="field">
              <span>Registration token</span>
              <input ref={tokenField} data-testid="auth-token" autoComplete="off" spellCheck={false} value={token} onChange={(e) => setToken(e.target.value)} />
              <small>Whoever runs this server can give you one.</small>
            </label>
          )}

          {mail && (
            <div className="callout" role="status" data-testid="auth-mail">
              <p>
                A mail is on its way to <strong>{mail.address}</strong>. Open the link in it, then come back here.
              </p>
              <button type="button" className="link" onClick={mailAgain} disabled={busy}>
                Send it again
              </button>
            </div>
          )}

          {error && (
            <p className="callout callout-problem" role="alert" data-testid="auth-error">
              {error}
            </p>
          )}

          <button type="submit" className="button button-primary button-wide" disabled={busy} data-testid="auth-submit">
            {busy ? <span className="spinner" aria-label="Working" /> : todo}
          </button>

          {mode !== 'up' && (
            <button type="button" className="link auth-switch" data-testid="auth-forgot" onClick={() => change(mode === 'in' ? 'forgot' : 'in')}>
              {mode === 'in' ? 'Forgot password?' : 'Back to signing in'}
            </button>
          )}
        </form>
        <footer className="auth-foot">
          <p>
            Homeserver <strong>{server.replace(/^https?:\/\//, '')}</strong>
          </p>
          <p>
            <a href="/meet/">Meet by a link</a>
            <a href="/doctor">Do calls work here?</a>
          </p>
        </footer>
      </section>
    </main>
  );
}
