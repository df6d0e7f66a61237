// SPDX-License-Identifier: Apache-2.0
import type { CallPhase } from './view.ts';

const talking = (phase: CallPhase): boolean => phase === 'connected' || phase === 'reconnecting';

/** Whether a call failed because the two found no way to each other: the doctor's page knows more. */
export function foundNoWay(reason: string | undefined, before: CallPhase): boolean {
  return (reason === 'ice_failed' || reason === 'ice_timeout') && !talking(before);
}

/**
 * Why a call ended, in words. `reason` is the SDK's hang-up reason, `byUs` whether this side ended it, `before` the
 * phase it was in.
 */
export function endedWords(reason: string | undefined, byUs: boolean, before: CallPhase, peer: string): string {
  const talked = talking(before);
  switch (reason) {
    case 'invite_timeout':
      return `${peer} did not answer`;
    case 'user_busy':
      return `${peer} is busy`;
    case 'answered_elsewhere':
      return 'Answered on another device';
    case 'ice_failed':
    case 'ice_timeout':
      return talked ? 'The connection was lost' : 'No connection could be made';
    case 'no_user_media':
    case 'user_media_failed':
      return 'The microphone or camera could not be used';
    case 'send_invite':
    case 'send_answer':
    case 'signalling_timeout':
      return 'The server could not be reached';
    case 'replaced':
    case 'transferred':
      return 'Call moved';
    case undefined:
    case 'user_hangup':
      if (!byUs && before === 'ringing') return `${peer} declined`;
      return 'Call ended';
    default:
      return talked ? 'Call ended' : 'The call could not be set up';
  }
}
