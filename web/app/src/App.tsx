// SPDX-License-Identifier: Apache-2.0
import { lazy, Suspense, useRef, useState } from 'react';
import { AuthScreen } from './auth/AuthScreen.tsx';
import { loadSession, saveSession, type Session } from './auth/session.ts';
import { Logo } from './ui/Icon.tsx';

const loadWorkspace = () => import('./workspace/Workspace.tsx');
const Workspace = lazy(loadWorkspace);

export function Splash({ words }: { words: string }) {
  return (
    <main className="splash" aria-busy="true">
      <Logo size={56} />
      <p>{words}</p>
    </main>
  );
}

export function App() {
  const [session, setSession] = useState<Session | null>(loadSession);
  const [notice, setNotice] = useState('');
  const password = useRef<string>(undefined);

  if (!session) {
    return (
      <AuthScreen
        notice={notice}
        // The Matrix SDK is on its way while the person types.
        onTyping={() => void loadWorkspace()}
        onSession={(next, typed) => {
          password.current = typed;
          saveSession(next);
          setSession(next);
        }}
      />
    );
  }
  return (
    <Suspense fallback={<Splash words="Opening Trunkboard…" />}>
      <Workspace
        key={session.deviceId}
        session={session}
        takePassword={() => {
          const typed = password.current;
          password.current = undefined;
          return typed;
        }}
        onGone={(words) => {
          setNotice(words);
          setSession(null);
        }}
      />
    </Suspense>
  );
}
