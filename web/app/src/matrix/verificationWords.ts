// SPDX-License-Identifier: Apache-2.0

/** Why a verification ended without a result, from its cancellation code (spec "Key verification framework"). `who` cancelled it. */
export function cancelledWords(code: string | null, who: string): string {
  switch (code) {
    case 'm.timeout':
      return 'Nobody went on for too long, so it was stopped.';
    case 'm.mismatched_sas':
    case 'm.mismatched_commitment':
    case 'm.key_mismatch':
      return 'The emojis were not the same. Somebody may be reading along: ask each other on another way, and do not send anything secret until it works.';
    case 'm.user':
      return `${who} stopped it.`;
    case 'm.unknown_method':
      return 'The other side cannot compare emojis.';
    default:
      return 'It could not be finished. Please try again.';
  }
}

/** What to tell about a message that cannot be read, and whether confirming this device may help. `code` is the SDK's reason. */
export function unreadable(code: string, confirmed: boolean): { words: string; confirm: boolean } {
  switch (code) {
    case 'HISTORICAL_MESSAGE_BACKUP_UNCONFIGURED':
    case 'HISTORICAL_MESSAGE_NO_KEY_BACKUP':
    case 'MEGOLM_UNKNOWN_INBOUND_SESSION_ID':
    case 'HISTORICAL_MESSAGE_WORKING_BACKUP':
      if (!confirmed) return { words: 'Sent before this device could read along.', confirm: true };
      if (code === 'HISTORICAL_MESSAGE_NO_KEY_BACKUP') return { words: 'Sent before this device signed in, and no backup has its key.', confirm: false };
      return { words: 'The key of this message is not here yet. It appears when the sender or one of your devices comes online.', confirm: false };
    case 'HISTORICAL_MESSAGE_USER_NOT_JOINED':
      return { words: 'Sent before you joined: you have no key for it.', confirm: false };
    case 'MEGOLM_KEY_WITHHELD':
    case 'MEGOLM_KEY_WITHHELD_FOR_UNVERIFIED_DEVICE':
      return confirmed
        ? { words: 'The sender does not let this device read it.', confirm: false }
        : { words: 'The sender lets only confirmed devices read it.', confirm: true };
    case 'OLM_UNKNOWN_MESSAGE_INDEX':
      return { words: 'This device got the key for later messages only. Ask the sender to write it again.', confirm: false };
    default:
      return { words: 'This message cannot be read. Ask the sender to write it again.', confirm: !confirmed };
  }
}
