import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mountsBelow } from './mounts.ts';

const mountinfo = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:31 / /var/lib/somagent/kubelet rw shared:9 - ext4 /dev/vda rw
31 30 0:32 / /var/lib/somagent/kubelet/pods/a/volumes/b rw - tmpfs tmpfs rw
32 22 0:33 / /var/lib/somagent-other/x rw - tmpfs tmpfs rw
33 22 0:34 / /var/lib/somagent/with\\040space rw - tmpfs tmpfs rw
`;

test('mounts below a folder come deepest first, decoded, without those of a folder with a similar name', () => {
  assert.deepEqual(mountsBelow('/var/lib/somagent', mountinfo), [
    '/var/lib/somagent/kubelet/pods/a/volumes/b',
    '/var/lib/somagent/with space',
    '/var/lib/somagent/kubelet',
  ]);
});
