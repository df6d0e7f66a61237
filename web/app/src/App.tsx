// SPDX-License-Identifier: Apache-2.0
import { lazy, Suspense, useState } from 'react';
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

  if (!session) {
    return (
      <AuthScreen
        notice={notice}
        // The Matrix SDK is on its way while the person types.
        onTyping={() => void loadWorkspace()}
        onSession={(next) => {
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
        onGone={(words) => {
          setNotice(words);
          setSession(null);
        }}
      />
    </Suspense>
  );
}
