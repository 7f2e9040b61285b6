// Which words of an exported line are stand-ins, so that the preview can show them. The service makes them; this only
// recognises their form: a short word, a dash, a number.
import type { Redaction } from '$lib/generated/types';

export interface Piece {
  text: string;
  standIn: boolean;
}

const FORM = /\b(?:res|resource|gw|gateway|relay|node|user|account|email|host|name|ip|addr|address|zone|org|dev|device|path|tag|id|role|group)-\d+\b/g;

export function marked(line: string, redaction: Redaction): Piece[] {
  if (redaction !== 'pseudonyms') return [{ text: line, standIn: false }];
  const pieces: Piece[] = [];
  let from = 0;
  for (const found of line.matchAll(FORM)) {
    if (found.index > from) pieces.push({ text: line.slice(from, found.index), standIn: false });
    pieces.push({ text: found[0], standIn: true });
    from = found.index + found[0].length;
  }
  if (from < line.length) pieces.push({ text: line.slice(from), standIn: false });
  return pieces;
}
