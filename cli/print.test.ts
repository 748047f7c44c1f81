import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatReport, formatSession, formatTable } from './print.ts';

describe('formatTable', () => {
  it('aligns columns and leaves the last one ragged', () => {
    assert.equal(
      formatTable(
        ['POD', 'STATE'],
        [
          ['gateway-1', 'ready'],
          ['slm', 'ImagePullBackOff'],
        ],
      ),
      'POD        STATE\ngateway-1  ready\nslm        ImagePullBackOff\n',
    );
  });
});

describe('formatReport', () => {
  it('tells question, answer, workflow, latencies and how to go on', () => {
    const session = { id: 's1', status: 'open', workflowId: 'session/acme/s1', createdAt: '2026-01-01T00:00:00Z' };
    const timings = { queue: 4.25, firstToken: 31, model: 80, platform: 19.6, total: 99.6, absent: null };
    const turn = { prompt: 'Who are you?', answer: 'A tiny model.', status: 'completed', timings };
    assert.equal(
      formatReport(session, turn, { signInMs: 24.4, answerMs: 120.7 }, 'npx soma'),
      [
        'question  Who are you?',
        'answer    A tiny model.',
        'session   s1',
        'workflow  session/acme/s1',
        'latency   answer 121 ms, queue 4.3 ms, first token 31 ms, model 80 ms, platform 20 ms, total 100 ms, sign-in 24 ms',
        'next      npx soma session turn s1 "and then?"',
        '          npx soma session show s1',
        '',
      ].join('\n'),
    );
  });
});

describe('formatSession', () => {
  it('shows every turn, also one that did not complete', () => {
    const turns = [
      { prompt: 'a', answer: 'b', status: 'completed' },
      { prompt: 'c', answer: '', status: 'failed', error: 'the model is gone' },
    ];
    assert.equal(
      formatSession({ id: 's1', status: 'open', workflowId: 'w', createdAt: 't', turns }),
      'session   s1\nstatus    open\nworkflow  w\ncreated   t\n\n' +
        'question  a\nanswer    b\n\nquestion  c\nanswer     (the model is gone)\n',
    );
  });
});
