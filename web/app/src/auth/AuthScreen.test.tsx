// SPDX-License-Identifier: Apache-2.0
import { cleanup, fireEvent, render, screen, waitFor } from '@testing-library/react';
import { afterEach, expect, it, vi } from 'vitest';
import { AuthScreen } from './AuthScreen.tsx';

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

function open() {
  const onSession = vi.fn();
  const onTyping = vi.fn();
  render(<AuthScreen notice="" onTyping={onTyping} onSession={onSession} />);
  return { onSession, onTyping };
}

const type = (id: string, value: string) => fireEvent.input(screen.getByTestId(id), { target: { value } });

it('asks for a registration token only when the server wants one, and sends it', async () => {
  const bodies: { auth?: { token?: string } }[] = [];
  vi.stubGlobal('fetch', async (_url: string, init: RequestInit) => {
    const body = JSON.parse(String(init.body)) as { auth?: { token?: string } };
    bodies.push(body);
    return body.auth?.token
      ? new Response(JSON.stringify({ user_id: '@ann:x', device_id: 'D', access_token: 'A' }))
      : new Response(JSON.stringify({ session: 's', flows: [{ stages: ['m.login.registration_token'] }] }), { status: 401 });
  });
  const { onSession } = open();
  fireEvent.click(screen.getByTestId('auth-tab-signup'));
  expect(screen.queryByTestId('auth-token')).toBeNull();
  type('auth-username', 'Ann');
  type('auth-password', 'pw');
  fireEvent.click(screen.getByTestId('auth-submit'));
  const field = await screen.findByTestId('auth-token');
  await waitFor(() => expect(document.activeElement).toBe(field));
  expect(onSession).not.toHaveBeenCalled();
  type('auth-token', ' secret ');
  fireEvent.click(screen.getByTestId('auth-submit'));
  await waitFor(() => expect(onSession).toHaveBeenCalledOnce());
  expect(bodies.at(-1)).toMatchObject({ username: 'ann', auth: { token: 'secret', session: 's' } });
});

it('sends nothing while a field is empty, and says what is missing', () => {
  const fetch = vi.fn();
  vi.stubGlobal('fetch', fetch);
  open();
  fireEvent.click(screen.getByTestId('auth-submit'));
  expect(screen.getByRole('alert').textContent).toContain('fill in');
  expect(fetch).not.toHaveBeenCalled();
});

it('starts loading the rest of the app with the first key', () => {
  const { onTyping } = open();
  expect(onTyping).not.toHaveBeenCalled();
  type('auth-username', 'a');
  expect(onTyping).toHaveBeenCalled();
});
