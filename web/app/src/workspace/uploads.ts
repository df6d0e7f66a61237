// SPDX-License-Identifier: Apache-2.0
import { MsgType } from 'matrix-js-sdk';
import { useCallback, useState } from 'react';
import type { Connection } from '../matrix/connection.ts';
import { encryptFile } from '../matrix/attachments.ts';
import { toast } from '../store.ts';

export interface Upload {
  key: number;
  name: string;
  /** 0 to 1. */
  done: number;
  failed: boolean;
  file: File;
}

let nextKey = 1;

function msgtypeOf(file: File): MsgType {
  // SVG may carry script; it is offered as a download.
  if (file.type.startsWith('image/') && file.type !== 'image/svg+xml') return MsgType.Image;
  if (file.type.startsWith('video/')) return MsgType.Video;
  if (file.type.startsWith('audio/')) return MsgType.Audio;
  return MsgType.File;
}

async function imageSize(file: File): Promise<{ w?: number; h?: number }> {
  try {
    const bitmap = await createImageBitmap(file);
    const size = { w: bitmap.width, h: bitmap.height };
    bitmap.close();
    return size;
  } catch {
    return {};
  }
}

/** Uploads files into a room and keeps a line for each until it is sent. */
export function useUploads({ client, keeper }: Connection, roomId: string) {
  const [uploads, setUploads] = useState<Upload[]>([]);
  const patch = useCallback((key: number, change: Partial<Upload>) => {
    setUploads((all) => all.map((u) => (u.key === key ? { ...u, ...change } : u)));
  }, []);
  const drop = useCallback((key: number) => setUploads((all) => all.filter((u) => u.key !== key)), []);

  const run = useCallback(
    async (upload: Upload) => {
      const { file, key } = upload;
      try {
        const msgtype = msgtypeOf(file);
        const size = msgtype === MsgType.Image ? await imageSize(file) : {};
        await keeper.renewIfDue();
        // The server learns neither the name nor the type of what goes into an encrypted room.
        const sealed = client.getRoom(roomId)?.hasEncryptionStateEvent() ? await encryptFile(file) : undefined;
        const { content_uri: url } = await client.uploadContent(sealed?.data ?? file, {
          name: sealed ? undefined : file.name,
          includeFilename: !sealed,
          type: (!sealed && file.type) || 'application/octet-stream',
          progressHandler: ({ loaded, total }) => patch(key, { done: total ? loaded / total : 0 }),
        });
        const info = { mimetype: file.type || 'application/octet-stream', size: file.size, ...size };
        const where = sealed ? { file: { ...sealed.file, url } } : { url };
        await client.sendMessage(roomId, { msgtype, body: file.name, filename: file.name, ...where, info } as never);
        drop(key);
      } catch (error) {
        patch(key, { failed: true });
        const tooLarge = (error as { errcode?: string }).errcode === 'M_TOO_LARGE';
        toast(tooLarge ? `${file.name} is too large for this server.` : `${file.name} could not be sent.`, 'problem');
      }
    },
    [client, keeper, roomId, patch, drop],
  );

  const add = useCallback(
    (files: Iterable<File>) => {
      for (const file of files) {
        const upload: Upload = { key: nextKey++, name: file.name, done: 0, failed: false, file };
        setUploads((all) => [...all, upload]);
        void run(upload);
      }
    },
    [run],
  );

  const retry = useCallback(
    (upload: Upload) => {
      patch(upload.key, { failed: false, done: 0 });
      void run(upload);
    },
    [patch, run],
  );

  return { uploads, add, retry, drop };
}
