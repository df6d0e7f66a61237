// SPDX-License-Identifier: Apache-2.0
// The address of the frame.

/** What a program hands to the constructor. */
export interface ApiOptions {
  roomName?: string;
  width?: number | string;
  height?: number | string;
  parentNode?: Node;
  configOverwrite?: object;
  interfaceConfigOverwrite?: object;
  jwt?: string;
  lang?: string;
  onload?: () => void;
  invitees?: unknown[];
  devices?: object;
  userInfo?: object;
  iceServers?: object;
  e2eeKey?: string;
  release?: string;
  sandbox?: string;
  /** Only from programs of long ago, and for trying things out on localhost. */
  noSSL?: boolean;
}

/** The positional arguments of long ago, by name. */
export function optionsFrom(args: unknown[]): ApiOptions {
  if (typeof args[0] === 'object' && args[0] !== null) return args[0] as ApiOptions;
  const [roomName, width, height, parentNode, configOverwrite, interfaceConfigOverwrite, noSSL, jwt, onload] = args as never[];
  return { roomName, width, height, parentNode, configOverwrite, interfaceConfigOverwrite, noSSL, jwt, onload };
}

/**
 * The page of a meeting at `domain` (a host, with a port and a path if need be), with everything it shall know in its fragment, which no
 * server sees. `script` is where this script came from: a server on trial has no certificate, and was asked by http: already.
 */
export function frameAddress(domain: string, id: number, o: ApiOptions, script?: string): string {
  const own = script && URL.canParse(script) ? new URL(script) : undefined;
  const plain = o.noSSL === true || (own?.protocol === 'http:' && own.host === domain.split('/')[0]);
  const url = new URL(`${plain ? 'http' : 'https'}://${domain}`);
  const room = String(o.roomName ?? '').split('/').map(encodeURIComponent).join('/');
  url.pathname = `${url.pathname.replace(/\/+$/, '')}/${room}`;
  const lang = o.lang ?? (o.configOverwrite as { defaultLanguage?: string } | undefined)?.defaultLanguage;
  if (lang) url.searchParams.set('lang', lang);
  if (o.release) url.searchParams.set('release', o.release);
  const parts = [`jitsi_meet_external_api_id=${id}`];
  if (o.jwt) parts.push(`jwt=${encodeURIComponent(JSON.stringify(o.jwt))}`);
  const groups = { config: o.configOverwrite, interfaceConfig: o.interfaceConfigOverwrite, userInfo: o.userInfo, devices: o.devices };
  for (const [group, values] of Object.entries(groups)) {
    for (const [key, value] of Object.entries(values ?? {})) {
      if (value !== undefined) parts.push(`${group}.${encodeURIComponent(key)}=${encodeURIComponent(JSON.stringify(value))}`);
    }
  }
  url.hash = parts.join('&');
  return url.href;
}

/** A length as CSS has it; a number counts pixels. */
export function cssLength(value: unknown): string | undefined {
  if (typeof value === 'number' && value >= 0) return `${value}px`;
  if (typeof value !== 'string') return undefined;
  if (/^\d+(\.\d+)?$/.test(value)) return `${value}px`;
  return /^\d*\.?\d+(px|em|rem|pt|%|[dls]?v[hw])$/.test(value) ? value : undefined;
}
