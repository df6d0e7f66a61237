// SPDX-License-Identifier: Apache-2.0
import { createContext, useContext } from 'react';
import type { Connection } from '../matrix/connection.ts';

const ConnectionContext = createContext<Connection | null>(null);
export const ConnectionProvider = ConnectionContext.Provider;

export function useConnection(): Connection {
  const connection = useContext(ConnectionContext);
  if (!connection) throw new Error('no connection above this component');
  return connection;
}
